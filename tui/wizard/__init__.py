"""The wizard: a profile from questions, one step a screen."""
