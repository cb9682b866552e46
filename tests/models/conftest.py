import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small lose more by waiting for a second thread than they gain, the more so on busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
