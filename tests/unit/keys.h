#ifndef TESTS_UNIT_KEYS_H
#define TESTS_UNIT_KEYS_H

/* Public keys whose private halves nobody has kept: type and base64, and for those that relayd takes
 * the fingerprint as ssh-keygen -l shows it. SK_ keys are put together by hand from others, no token has
 * them; CERTIFICATE is one for KEY_ED25519. */
#define TYPE_ED25519 "ssh-ed25519"
#define BLOB_ED25519 "AAAAC3NzaC1lZDI1NTE5AAAAIPlKFsL4Sh2PTQopdCSMf3b1dbG99nz/oohtAUji9kBW"
#define FINGERPRINT_ED25519 "SHA256:J06jn5lw122pVBLoJV5WHGN4flhZnF6idZ41EnKwitc"

#define TYPE_ED25519_B "ssh-ed25519"
#define BLOB_ED25519_B "AAAAC3NzaC1lZDI1NTE5AAAAIG7118X7gEtGU3B7TxQyC7xH/ITSRbI8Vt25iopVj79c"
#define FINGERPRINT_ED25519_B "SHA256:Re67Yoc1f6RamKTp/JkxwF0XjUVFY0cud7vdeSw9kCA"

#define TYPE_ED25519_C "ssh-ed25519"
#define BLOB_ED25519_C "AAAAC3NzaC1lZDI1NTE5AAAAIKo5zKU1c1jYAm9ZzWsy2vBudalKcCnXvpaHMGYuSl5/"
#define FINGERPRINT_ED25519_C "SHA256:ugRORzMgdEA9bG3HfdO+56dpvHuO68rrh0ZsmyIRZ+k"

#define TYPE_ECDSA_256 "ecdsa-sha2-nistp256"
#define BLOB_ECDSA_256                                                                                       \
    "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBDdkDFOqXk0Gw84qPTgFpNePKHeFvctZhx3SEsCNcwARveox"   \
    "OY48hS3q/0MDDHXIU6QG47pMyTVnn24jUTaNnyA="
#define FINGERPRINT_ECDSA_256 "SHA256:TrNDKJY2rwBQ5AIa9+ByiaYKM/yt/LQBX7zsX2jE5aQ"

#define TYPE_ECDSA_384 "ecdsa-sha2-nistp384"
#define BLOB_ECDSA_384                                                                                       \
    "AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBIF4eOXB34xngSU4uz9gbR80dAHi1lnuX3+3LNUOAvFXZ4Xe"   \
    "mHRBXQFu6S7wocvSKcePemuOciHp5k1FFB+KeYIhIaV/Ax8kv4Vu8b9rMLKpx5L2uL+pnp4BhDJSEuKilA=="
#define FINGERPRINT_ECDSA_384 "SHA256:j2jbpCMcgy1IPviMi6CZWRq96q4GxDaDhGDfO2qqDvI"

#define TYPE_ECDSA_521 "ecdsa-sha2-nistp521"
#define BLOB_ECDSA_521                                                                                       \
    "AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEAAAAIbmlzdHA1MjEAAACFBAHoCQcxpS6LVT1KqBJzfavGK+gR8mRMqi2wjx2slgABvMXW"   \
    "mcGF2Yfo2lKsc8LT4+OOcKQUupKYtyyL9dIcwDHyyQEAHqUvIFvBe/RIuCcp+fpOd7s1Qr5Y+UcAELc3Ru74nDPcHjoXgAGZqlap"   \
    "Yg7mHxPvDFawoMhm/PFoCN4csqRXjQ=="
#define FINGERPRINT_ECDSA_521 "SHA256:9MCTW2cFdaIOUPT35VYSFB2oTq1E8NqgowIRS/fFZWw"

#define TYPE_RSA_2048 "ssh-rsa"
#define BLOB_RSA_2048                                                                                        \
    "AAAAB3NzaC1yc2EAAAADAQABAAABAQDrZe682kz9SsnZuImj4izgj9/25WTrMQ+bbra7SrFUqNnsGiluzGmKBh4yjCNfpZpEjgLc"   \
    "i41oKcHfHQb3//eJe2l41NppG8BdsBciLrLnWK2mwz6G+OZKojbIPrJKA1nLVhiq1SVnF+iN9Y31xGp5ITbrVs/LmPAYBeeejOIF"   \
    "PgfKOq/r1R0dLocV6uIvFoGZocBK4xO3HuFC0vmYfHKyUxjBo+67gmotdo+iMytYMUX3KPvMOUf+Vr8JqgZwCfZdFWPNlVLZ/cGS"   \
    "NBR1qt3yMm1/5IfAQ+wPzZnLAm0r1kOb45+EPo74bqJPy7Hu2zHF2fgdQNA4BEnR7qqurox3"
#define FINGERPRINT_RSA_2048 "SHA256:dQsKfNXUY5RI+KGVb4cm1TLc+qjDSUs6dSfi7Htn0Tc"

#define TYPE_RSA_2047 "ssh-rsa"
#define BLOB_RSA_2047                                                                                        \
    "AAAAB3NzaC1yc2EAAAADAQABAAABAGnjThWzCmbIxUD/TjkFcNjJ+ngugGlDqsE/DicHJbu+Ys+4QB0GEgzmUkv+C+pXp2fkCL/G"   \
    "MyvbL4KQFUGS/hX8pidZXLbfiT8riHXrxoX2lpvqHd+milMseLnZ+D4kseBlFPSBKxEaAW99eJ+9TJiJTpVGlJtY4snJFSMtyfkn"   \
    "w8BCfjcFLc8xm7kKr3cufJLaXwJZnhBg3+oZSGQ2je9qtzeHf6G7Bsk+XoOJ3y/mn93ISw+9d3PZD6R486gxtuYENMqqTsVOaxTc"   \
    "Uj1TuNedEMkewLCb4tLApfGA8lZmgfrU1wvCQzGV3L8pZPaf6lKI0kR/Qh2t/iDAhBZeUK8="

#define TYPE_RSA_1024 "ssh-rsa"
#define BLOB_RSA_1024                                                                                        \
    "AAAAB3NzaC1yc2EAAAADAQABAAAAgQCxPECfhY7STtohyiiSEqXMWP2FCkT9N8A9DfMj9+4GujgaHnsZCI5q7wjTUc1OLp/5hlyA"   \
    "3XiAEduH/eMr+j8l9rhyqX04q5P+1LUngr1JD/3jW6c+oPVdPRdjw6abcNvlG50yExUbzkgtzWjmxq7Crg/sjtmL/nNVgcbnzk9h"   \
    "PQ=="

#define TYPE_SK_ED25519 "sk-ssh-ed25519@openssh.com"
#define BLOB_SK_ED25519                                                                                      \
    "AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIPlKFsL4Sh2PTQopdCSMf3b1dbG99nz/oohtAUji9kBWAAAABHNzaDo="
#define FINGERPRINT_SK_ED25519 "SHA256:7wwWwo0IHctuNoKEekCXpyQdr9R/j0VQQlrqXpERmhA"

#define TYPE_SK_ECDSA "sk-ecdsa-sha2-nistp256@openssh.com"
#define BLOB_SK_ECDSA                                                                                        \
    "AAAAInNrLWVjZHNhLXNoYTItbmlzdHAyNTZAb3BlbnNzaC5jb20AAAAIbmlzdHAyNTYAAABBBDdkDFOqXk0Gw84qPTgFpNePKHeF"   \
    "vctZhx3SEsCNcwARveoxOY48hS3q/0MDDHXIU6QG47pMyTVnn24jUTaNnyAAAAAEc3NoOg=="
#define FINGERPRINT_SK_ECDSA "SHA256:jpZ9fHoT/w21Upwyutl6OQ3MMRaKfVyr927thG2UV+I"

#define TYPE_DSA "ssh-dss"
#define BLOB_DSA                                                                                             \
    "AAAAB3NzaC1kc3MAAACBAOLAe27m3b5bPMP4A3YeUKaVM7TZIpFD1N/x3X8uwEI9aPiHBMplEW/nFvrSH+7bo8DnX3df/Ydr5XUw"   \
    "pFYBeayRimbw0ZdE+szOzV8RJ2B72PTYE0TxrErIQFPnxUGicN6j3UpO0PQkR5bjFZP/1OfgAWHRd+nbKDhq76iSKOElAAAAFQCg"   \
    "yXiZrm/b5mHqfNlsETcJSTMoaQAAAIBe1/9A9Inh8yhWX1mxKsAgF47vJPG0P3O8qmsNLq6oj8IwNdIf+NUUbUubaGsA6seme7uA"   \
    "k68hKtB+MaXp9qmR7+15wyIl6pIN0jzIV+2iJLx4kbLbEW6Ej8Cv9eKv3VE2DWo9K/CCWWm2VroFM53jGOSwz6LOBHrvLDu2j8xe"   \
    "egAAAIB0rJcsB9eG6ZQHi/FjVV9nsZNOfZBLeiXUUpncI2n83JXFXv1vJwhcppZilantg4mepAG74xBG1MIndvEEV1MJqTot5vEm"   \
    "/xG2dZlZQKfyTC2A/uvCKTGSY+O/9I5GatbPA2kHWvCaU9qbVQwuA8PRRpBlwt7OJtmr2GTX7UroWA=="

#define TYPE_CERTIFICATE "ssh-ed25519-cert-v01@openssh.com"
#define BLOB_CERTIFICATE                                                                                     \
    "AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29tAAAAIOtPH7Y1VV7dleQ7zV89D2OztNgDgsTzJpqzGNxtcCSeAAAA"   \
    "IPlKFsL4Sh2PTQopdCSMf3b1dbG99nz/oohtAUji9kBWAAAAAAAAAAAAAAABAAAAAmlkAAAABgAAAAJwaQAAAAAAAAAA////////"   \
    "//8AAAAAAAAAggAAABVwZXJtaXQtWDExLWZvcndhcmRpbmcAAAAAAAAAF3Blcm1pdC1hZ2VudC1mb3J3YXJkaW5nAAAAAAAAABZw"   \
    "ZXJtaXQtcG9ydC1mb3J3YXJkaW5nAAAAAAAAAApwZXJtaXQtcHR5AAAAAAAAAA5wZXJtaXQtdXNlci1yYwAAAAAAAAAAAAAAMwAA"   \
    "AAtzc2gtZWQyNTUxOQAAACBu9dfF+4BLRlNwe08UMgu8R/yE0kWyPFbduYqKVY+/XAAAAFMAAAALc3NoLWVkMjU1MTkAAABAIGpk"   \
    "i58R9Q0CFBmoKCh5UMMvHIYIS4EcmsH6CFEAvCrF3tP/Qw9MbhxXTrLGZjJWgHLS8vnxOnMISNmmhoGsDQ=="

#define KEY(name) TYPE_##name " " BLOB_##name

#endif
