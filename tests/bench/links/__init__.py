"""What the link bench compares: one file a transport, each an `End` for either process."""
