"""Which sample of every stream belongs to which row of the dataset, and how far off it is."""
