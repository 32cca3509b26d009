"""The HTTP handlers. They hold little logic, and no other code knows HTTP."""
