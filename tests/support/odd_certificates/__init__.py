"""The table of odd certificates and chains, and what makes, presents and judges them."""
