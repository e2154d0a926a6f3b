"""Settings say their rules once."""

import json
import unittest
from dataclasses import dataclass
from typing import Literal, Optional

from ocelli_sdk import SettingsError, setting
from ocelli_sdk.settings import read, schema


@dataclass
class Zone:
    name: str = setting(min_length=1)
    polygon: list[tuple[float, float]] = setting([], min_length=3)


@dataclass
class Settings:
    score: float = setting(0.4, minimum=0, maximum=1, about="Least score")
    count: int = 3
    labels: list[str] = setting([])
    mode: Literal["fast", "good"] = "fast"
    rate: Optional[float] = None
    zones: list[Zone] = setting([])

    def check(self):
        if self.count == 13:
            raise ValueError("count: 13 is unlucky")


class Typed(unittest.TestCase):
    def refused(self, given, *words):
        with self.assertRaises(SettingsError) as caught:
            read(Settings, given)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_defaults_hold_and_are_not_shared(self):
        first, second = read(Settings, {}), read(Settings, {})
        self.assertEqual((first.score, first.mode, first.rate), (0.4, "fast", None))
        self.assertIsNot(first.labels, second.labels)

    def test_nested_values_are_read(self):
        zone = {"name": "gate", "polygon": [[0, 0], [1, 0], [1, 1]]}
        settings = read(Settings, {"zones": [zone], "rate": 5, "count": 4.0})
        self.assertEqual(settings.zones[0].polygon[1], (1.0, 0.0))
        self.assertEqual((settings.rate, settings.count), (5.0, 4))

    def test_an_error_names_the_setting_its_value_and_what_is_right(self):
        self.refused({"score": 1.5}, "settings.score: 1.5 is more than 1")
        self.refused({"score": True}, "settings.score: true is not a number")
        self.refused({"count": 1.5}, "settings.count: 1.5 is not an integer")
        self.refused({"scores": 1}, "settings.scores: there is no such setting", "score, count")
        self.refused({"mode": "bad"}, 'settings.mode: "bad" is none of "fast", "good"')
        self.refused({"zones": [{}]}, "settings.zones[0].name: it is missing")
        self.refused({"zones": [{"name": ""}]}, "settings.zones[0].name: its length 0")
        self.refused({"count": 13}, "settings: count: 13 is unlucky")
        self.refused([], "settings: [] is no object")

    def test_the_schema_has_the_same_rules(self):
        found = schema(Settings)
        self.assertEqual(
            found["properties"]["score"],
            {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "description": "Least score",
                "default": 0.4,
            },
        )
        zone = found["properties"]["zones"]["items"]
        self.assertEqual(zone["required"], ["name"])
        self.assertEqual(zone["properties"]["polygon"]["minItems"], 3)
        self.assertFalse(found["additionalProperties"])
        json.dumps(found)

    def test_what_json_does_not_know_is_refused_at_once(self):
        @dataclass
        class Wrong:
            when: complex = 0j

        with self.assertRaisesRegex(TypeError, "Wrong.when"):
            schema(Wrong)
        with self.assertRaisesRegex(TypeError, "minimun"):
            setting(1, minimun=0)


if __name__ == "__main__":
    unittest.main()
