"""Appendix A: localisation."""
