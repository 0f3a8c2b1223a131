"""Recovery splices: failed beginnings of episodes, continued until the task is solved."""
