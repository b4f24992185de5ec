"""Options and steps that the commands `spslam train …` share."""
