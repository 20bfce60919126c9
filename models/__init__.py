"""The ground floor: words, states, settings, the store and the queue. Imports neither wing."""
