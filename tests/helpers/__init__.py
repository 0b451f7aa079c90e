"""What the tests share: bodies that can be told apart, and peers that run as processes of their own."""
