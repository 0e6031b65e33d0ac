"""HTTP: the API, served by a process of `noojee-agi serve`."""
