"""HTML pages made from run directories."""
