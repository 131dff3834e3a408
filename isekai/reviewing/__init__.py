"""What `isekai review` is made of: what lies on the desk, its pictures, the server and its page."""
