"""Storage in MongoDB, and the embedded database for development. No other code uses MongoDB."""
