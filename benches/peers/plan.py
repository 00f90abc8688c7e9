"""A plan as one would write it in an afternoon: csv, phonenumbers, jinja2, a hash of each message."""

import csv
import hashlib
import json
import sys

import jinja2
import phonenumbers

people, suppressed, codes, out = sys.argv[1:5]


def number(text):
    parsed = phonenumbers.parse(text, "IN")
    if not phonenumbers.is_valid_number(parsed):
        raise ValueError(text)
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


seen = set()
with open(suppressed) as file:
    seen.update(number(row["mobile"]) for row in csv.DictReader(file))
environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
first = environment.from_string("{{ recipient.first_name | default('there') }}")
second = environment.from_string("{{ recipient.city }}")
total = hashlib.sha256()
kept = 0
with open(people) as rows, open(codes) as pool:
    pool = csv.DictReader(pool)
    for row in csv.DictReader(rows):
        try:
            to = number(row["mobile"])
        except (ValueError, phonenumbers.NumberParseException):
            continue
        if to in seen:
            continue
        seen.add(to)
        message = [to, first.render(recipient=row), second.render(recipient=row), next(pool)["code"]]
        total.update(hashlib.sha256(json.dumps(message).encode()).digest())
        kept += 1
with open(out, "w") as file:
    json.dump({"send": kept, "hash": total.hexdigest()}, file)
