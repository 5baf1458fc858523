"""The compatibility facts: those that come with imagegen and a user's own."""
