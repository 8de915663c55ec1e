"""Appendix B: deep features and linear SVMs."""
