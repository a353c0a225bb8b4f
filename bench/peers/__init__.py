"""The same jobs in other libraries, as their documentation does them."""
