"""Files of artifacts and of pushed models, in a folder of this machine or wherever a URI says."""
