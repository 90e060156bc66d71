"""What the engine bench drives: this project and its peers, one file each, all as `engine.Engine`."""
