"""What goes over the wire, without a wire: messages, their limits, their bytes, and frames. Nothing here waits."""
