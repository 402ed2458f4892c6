"""USD per hour, as published: the figures that the emulator serves. None of them is in the product.

Source: the public skypilot-catalog, catalogs/v9/aws/vms.csv, commit 2c3d7ea7 (about July 2026); Linux, shared tenancy,
spot by zone id. Disk and address prices: AWS price lists of 2026.
"""

from __future__ import annotations

REGIONS = ("us-east-1", "us-west-2", "eu-west-1")

# Type: on-demand price in each of REGIONS ("" where it is not offered).
ON_DEMAND = {
    "t3.micro": ("0.0104", "0.0104", "0.0114"),
    "t3.medium": ("0.0416", "0.0416", "0.0456"),
    "m7i.large": ("0.1008", "0.1008", "0.11235"),
    "c7i.xlarge": ("0.1785", "0.1785", "0.19152"),
    "t4g.medium": ("0.0336", "0.0336", "0.0368"),
    "m7g.large": ("0.0816", "0.0816", "0.091"),
    "g4dn.xlarge": ("0.526", "0.526", "0.587"),
    "g5.xlarge": ("1.006", "1.006", "1.123"),
    "g5.2xlarge": ("1.212", "1.212", "1.35296"),
    "g5.12xlarge": ("5.672", "5.672", "6.33167"),
    "g6.xlarge": ("0.8048", "0.8048", ""),
    "g6e.xlarge": ("1.861", "1.861", ""),
    "p4d.24xlarge": ("21.957642", "21.95764", "23.71569"),
    "p5.48xlarge": ("55.04", "55.04", ""),
}

# Type: architecture, vCPUs, GiB of memory, GPUs.
SHAPES = {
    "t3.micro": ("x86_64", 2, 1, 0),
    "t3.medium": ("x86_64", 2, 4, 0),
    "m7i.large": ("x86_64", 2, 8, 0),
    "c7i.xlarge": ("x86_64", 4, 8, 0),
    "t4g.medium": ("arm64", 2, 4, 0),
    "m7g.large": ("arm64", 2, 8, 0),
    "g4dn.xlarge": ("x86_64", 4, 16, 1),
    "g5.xlarge": ("x86_64", 4, 16, 1),
    "g5.2xlarge": ("x86_64", 8, 32, 1),
    "g5.12xlarge": ("x86_64", 48, 192, 4),
    "g6.xlarge": ("x86_64", 4, 16, 1),
    "g6e.xlarge": ("x86_64", 4, 32, 1),
    "p4d.24xlarge": ("x86_64", 96, 1152, 8),
    "p5.48xlarge": ("x86_64", 192, 2048, 8),
}

# Type: spot price by zone id. A zone that is missing does not offer the type.
SPOT = {
    "t3.micro": {
        "use1-az1": "0.0045", "use1-az2": "0.0042", "use1-az4": "0.0040", "use1-az5": "0.0036", "use1-az6": "0.0041",
        "usw2-az1": "0.0037", "usw2-az2": "0.0031", "usw2-az3": "0.0039", "usw2-az4": "0.0031",
        "euw1-az1": "0.0050", "euw1-az2": "0.0047", "euw1-az3": "0.0049",
    },
    "t3.medium": {
        "use1-az1": "0.0158", "use1-az2": "0.0141", "use1-az4": "0.0157", "use1-az5": "0.0156", "use1-az6": "0.0145",
        "usw2-az1": "0.0184", "usw2-az2": "0.0146", "usw2-az3": "0.0173", "usw2-az4": "0.0152",
        "euw1-az1": "0.0190", "euw1-az2": "0.0209", "euw1-az3": "0.0201",
    },
    "m7i.large": {
        "use1-az1": "0.0376", "use1-az2": "0.0325", "use1-az4": "0.0341", "use1-az5": "0.0372", "use1-az6": "0.0316",
        "usw2-az1": "0.0324", "usw2-az2": "0.0287", "usw2-az3": "0.0301", "usw2-az4": "0.0265",
        "euw1-az1": "0.0537", "euw1-az2": "0.0663", "euw1-az3": "0.0463",
    },
    "c7i.xlarge": {
        "use1-az1": "0.0718", "use1-az2": "0.0683", "use1-az4": "0.0653", "use1-az5": "0.0557", "use1-az6": "0.0632",
        "usw2-az1": "0.0735", "usw2-az2": "0.0695", "usw2-az3": "0.0719", "usw2-az4": "0.0537",
        "euw1-az1": "0.0886", "euw1-az2": "0.0935", "euw1-az3": "0.0899",
    },
    "t4g.medium": {
        "use1-az1": "0.0218", "use1-az2": "0.0136", "use1-az4": "0.0156", "use1-az5": "0.0143", "use1-az6": "0.0134",
        "usw2-az1": "0.0142", "usw2-az2": "0.0154", "usw2-az3": "0.0171", "usw2-az4": "0.0115",
        "euw1-az1": "0.0154", "euw1-az2": "0.0156", "euw1-az3": "0.0149",
    },
    "m7g.large": {
        "use1-az1": "0.0409", "use1-az2": "0.0311", "use1-az4": "0.0267", "use1-az5": "0.0270", "use1-az6": "0.0272",
        "usw2-az1": "0.0260", "usw2-az2": "0.0237", "usw2-az3": "0.0228", "usw2-az4": "0.0297",
        "euw1-az1": "0.0357", "euw1-az2": "0.0356", "euw1-az3": "0.0359",
    },
    "g4dn.xlarge": {
        "use1-az1": "0.2154", "use1-az2": "0.2132", "use1-az4": "0.2160", "use1-az5": "0.2139", "use1-az6": "0.2150",
        "usw2-az1": "0.2155", "usw2-az2": "0.2279", "usw2-az3": "0.2147",
        "euw1-az1": "0.2682", "euw1-az2": "0.2602", "euw1-az3": "0.3066",
    },
    "g5.xlarge": {
        "use1-az1": "0.4328", "use1-az2": "0.4516", "use1-az4": "0.4473", "use1-az5": "0.4353", "use1-az6": "0.4423",
        "usw2-az1": "0.5445", "usw2-az2": "0.5657", "usw2-az3": "0.5232",
        "euw1-az1": "0.5917", "euw1-az2": "0.5941", "euw1-az3": "0.5868",
    },
    "g5.2xlarge": {
        "use1-az1": "0.5155", "use1-az2": "0.4896", "use1-az4": "0.4954", "use1-az5": "0.4859", "use1-az6": "0.4883",
        "usw2-az1": "0.5502", "usw2-az2": "0.5256", "usw2-az3": "0.5247",
        "euw1-az1": "0.6341", "euw1-az2": "0.6458", "euw1-az3": "0.6346",
    },
    "g5.12xlarge": {
        "use1-az1": "2.7858", "use1-az2": "2.0453", "use1-az4": "2.4420", "use1-az5": "2.6984", "use1-az6": "2.4575",
        "usw2-az1": "2.2733", "usw2-az2": "2.3114", "usw2-az3": "2.8360",
        "euw1-az1": "3.0894", "euw1-az2": "3.0926", "euw1-az3": "2.8608",
    },
    "g6.xlarge": {
        "use1-az1": "0.4159", "use1-az2": "0.3470", "use1-az4": "0.3618", "use1-az5": "0.5525", "use1-az6": "0.3607",
        "usw2-az1": "0.4226", "usw2-az2": "0.4209", "usw2-az3": "0.3539", "usw2-az4": "0.4289",
    },
    "g6e.xlarge": {
        "use1-az1": "1.3326", "use1-az2": "0.8783", "use1-az4": "1.0426", "use1-az6": "0.9516",
        "usw2-az1": "0.8685", "usw2-az2": "0.9713", "usw2-az3": "0.8597", "usw2-az4": "0.9791",
    },
    "p4d.24xlarge": {
        "use1-az1": "8.0087", "use1-az2": "6.5323", "use1-az4": "13.9933", "use1-az6": "11.7870",
        "usw2-az1": "10.6942", "usw2-az2": "14.5511", "usw2-az3": "15.7342", "usw2-az4": "11.9319",
        "euw1-az2": "14.5352",
    },
    "p5.48xlarge": {
        "use1-az1": "55.0400", "use1-az2": "18.7340", "use1-az3": "18.1597", "use1-az4": "55.0400",
        "use1-az5": "18.6838", "use1-az6": "16.9508",
        "usw2-az1": "16.5441", "usw2-az2": "19.3455", "usw2-az3": "19.1496", "usw2-az4": "9.3722",
    },
}  # fmt: skip

# USD per GB-month of gp3, and per hour of a public IPv4 address in use, in each of REGIONS.
GP3 = ("0.08", "0.08", "0.088")
IPV4 = "0.005"
