"""`dpo-service doctor`: tries everything that the settings name and says what to mend. It changes nothing."""
