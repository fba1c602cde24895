"""The blocks and where they go.

Five: after every second residual block of res3 and res4 (arXiv 1711.07971, 5 blocks). All: after
each of res3, res4 and res5.
"""

nl = dict(name="nl", mode="embedded_gaussian", sub_sample=True, norm="SyncBN")
snl = dict(name="snl")
gc = dict(name="gc", ratio=0.25)
dnl = dict(name="dnl", preset="mmseg", temperature=0.05, sub_sample=True, norm="SyncBN")

five = dict(res3=(1, 3), res4=(1, 3, 5))
all_layers = dict(res3=(0, 1, 2, 3), res4=(0, 1, 2, 3, 4, 5), res5=(0, 1, 2))
last_of_res3_res4 = dict(res3=(-1,), res4=(-1,))  # of the small networks
