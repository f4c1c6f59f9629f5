"""The pictures of the documentation, one module each, drawn from small computations of the library."""
