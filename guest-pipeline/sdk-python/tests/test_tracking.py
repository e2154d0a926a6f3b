"""Boxes, the tracker and zones."""

import json
import unittest

from ocelli_sdk import Box, Scored, Tracker, Zone


def person(x, class_=0):
    return Scored(Box.of(x, 10, 40, 80), 0.8, class_)


class Boxes(unittest.TestCase):
    def test_iou_is_the_shared_area_over_the_joint_area(self):
        a, b = Box.of(0, 0, 10, 10), Box.of(5, 0, 10, 10)
        self.assertAlmostEqual(a.iou(b), 50 / 150)
        self.assertEqual((a.iou(a), a.iou(Box.of(10, 0, 5, 5))), (1.0, 0.0))

    def test_a_box_is_clipped_and_grown_about_its_middle(self):
        self.assertEqual(Box.of(-5, 90, 20, 20).clip(100, 100), Box(0, 90, 15, 100))
        self.assertEqual(Box.of(10, 20, 10, 40).expanded(1.5), Box.of(7.5, 10, 15, 60))
        self.assertFalse(Box(0, 0, float("nan"), 1).proper)


class Tracking(unittest.TestCase):
    def test_an_object_begins_once_ends_once_and_keeps_its_number(self):
        tracker, story = Tracker(), []
        for n in range(30):
            found = [person(3 * n)] if n < 10 else []
            update = tracker.update(found, n / 10)
            story += [(n, "began", track.number) for track in update.began]
            story += [(n, "ended", track.number) for track in update.ended]
            if 1 <= n < 10:
                self.assertEqual(update.tracks[0].number, 1)
        # The last look at it was at 0.9 s; it is over when more than a second has passed.
        self.assertEqual(story, [(1, "began", 1), (20, "ended", 1)])

    def test_two_objects_that_meet_in_different_classes_do_not_swap(self):
        tracker = Tracker()
        for n in range(20):
            update = tracker.update([person(8 * n), person(160 - 8 * n, class_=2)], n / 10)
        self.assertEqual([track.number for track in update.tracks], [1, 2])

    def test_the_state_goes_on_with_the_same_numbers(self):
        old, new = Tracker(), Tracker()
        for n in range(3):
            old.update([person(n)], n / 10)
        new.restore(json.loads(json.dumps(old.state())))
        update = new.update([person(3), person(300)], 0.3)
        self.assertEqual(update.tracks[0].number, 1)
        self.assertEqual([track.number for track in new._tracks], [1, 2])

    def test_time_that_begins_anew_leaves_no_track_behind(self):
        old, new = Tracker(), Tracker()
        for n in range(3):
            old.update([person(0), person(300)], 500 + n / 10)
        new.restore(json.loads(json.dumps(old.state())))
        update = new.update([person(0)], 0)
        self.assertEqual([track.number for track in update.tracks], [1], "it is where it was")
        self.assertEqual([track.number for track in update.ended], [2])
        self.assertEqual([track.number for track in new.tracks], [1])

    def test_a_hostile_state_is_refused_and_changes_nothing(self):
        tracker = Tracker()
        tracker.update([person(0)], 0)
        for state in ({}, {"next": 1, "tracks": [[1, 0, [0, 0, 1, 1], 1, 0, 0, 1, True]]}, 7):
            with self.assertRaises((KeyError, TypeError, ValueError)):
                tracker.restore(state)
        self.assertEqual(len(tracker._tracks), 1)


class Zones(unittest.TestCase):
    def walk(self, zone, feet):
        tracker, told = Tracker(hits=1, iou=0.1), []
        for n, x in enumerate(feet):
            update = tracker.update([person(x)], n / 10)
            changes = zone.update(tracker.tracks, update.ended, n / 10, 640, 480)
            told += [(n, "left" if c.dwell is not None else "entered", c.dwell) for c in changes]
        return told

    def test_a_second_frame_confirms_and_the_dwell_is_from_the_first(self):
        right = Zone("right", [[0.5, 0], [1, 0], [1, 1], [0.5, 1]])
        # The foot is 20 px right of the left edge: inside from 300 on.
        told = self.walk(right, [280, 290, 310, 320, 330, 320, 310, 290, 280, 270])
        self.assertEqual([t[:2] for t in told], [(3, "entered"), (8, "left")])
        self.assertAlmostEqual(told[1][2], 0.5)

    def test_one_frame_outside_is_a_tremble(self):
        right = Zone("right", [[0.5, 0], [1, 0], [1, 1], [0.5, 1]])
        told = self.walk(right, [310, 310, 290, 310, 290, 310])
        self.assertEqual([t[:2] for t in told], [(1, "entered")])

    def test_the_state_goes_on_inside(self):
        square = [[0, 0], [1, 0], [1, 1], [0, 1]]
        old, new = Zone("all", square), Zone("all", square)
        self.assertEqual(len(self.walk(old, [100, 100])), 1)
        new.restore(json.loads(json.dumps(old.state())))
        self.assertEqual(self.walk(new, [100, 100]), [])

    def test_time_that_begins_anew_counts_the_dwell_from_there(self):
        square = [[0, 0], [1, 0], [1, 1], [0, 1]]
        tracker, zone = Tracker(hits=1), Zone("all", square)
        for seconds in (500, 501, 0, 1):
            update = tracker.update([person(100)], seconds)
            zone.update(tracker.tracks, update.ended, seconds, 640, 480)
        self.assertEqual(zone.dwell(tracker.tracks[0], 1), 1)

    def test_a_polygon_has_three_corners(self):
        with self.assertRaisesRegex(ValueError, "gate"):
            Zone("gate", [[0, 0], [1, 1]])


if __name__ == "__main__":
    unittest.main()
