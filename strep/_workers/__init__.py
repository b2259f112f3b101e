"""All cores: worker processes behind one port, and who looks after them. Floor 5."""
