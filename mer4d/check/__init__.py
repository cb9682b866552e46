"""Everything that is wrong with a corpus in one go. Empty of imports, because worker processes pass here."""
