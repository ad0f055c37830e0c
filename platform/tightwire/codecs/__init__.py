"""What turns an update into a frame and back."""
