"""A small server that speaks the protocol of remote fine-tuning, and really trains local models.

For tests, for teaching without an account, for trying a sweep before paying. It trains with this project's own
training, in processes of its own, and answers prompts with what came out.
"""
