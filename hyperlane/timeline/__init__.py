"""Where a run's time went: what workers record of each step, and what is made of it. Pure; nothing here does IO."""
