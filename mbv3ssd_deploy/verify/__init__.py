"""The product's conscience: does the deployed model still see what PyTorch saw?"""
