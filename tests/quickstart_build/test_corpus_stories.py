from quickstart.corpus import stories


SPLITS = ("train", "validation", "benchmark")


def templates(scenario):
    outcomes = [sentence for outcome in ("good", "bad") for step in scenario[outcome].values() for sentence in step]
    return [*scenario["opening"], *scenario["event"], *outcomes]


def test_every_sentence_of_the_grammar_names_the_hero_and_belongs_to_one_scenario():
    sentences = [sentence for scenario in stories.SCENARIOS for sentence in templates(scenario)]
    assert len(stories.SCENARIOS) >= 30
    assert [sentence for sentence in sentences if "{name}" not in sentence] == []
    assert len(set(sentences)) == len(sentences)


def test_every_step_of_a_scenario_has_two_sentences():
    for scenario in stories.SCENARIOS:
        steps = [scenario["opening"], scenario["event"]]
        for outcome in ("good", "bad"):
            assert list(scenario[outcome]) == ["turn", "result", "ending"]
            steps += scenario[outcome].values()
        assert [len(step) for step in steps] == [2] * 8


def test_each_hero_has_a_name_of_its_own():
    names = [name for name, _ in stories.HEROES]
    assert len(set(names)) == len(names)


def test_thousands_of_stories_are_different_and_reproducible():
    drawn = stories.generate_stories(5_000, "train", seed=0)
    assert len({story.sentences for story in drawn}) == 5_000
    assert drawn == stories.generate_stories(5_000, "train", seed=0)
    assert drawn[:10] != stories.generate_stories(10, "train", seed=1)
    assert not any("{" in sentence for story in drawn for sentence in story.sentences)
    assert all(len(story.sentences) == 5 for story in drawn)


def test_splits_share_no_sentence():
    sentences = {
        split: {text for story in stories.generate_stories(1_000, split, seed=0) for text in story.sentences}
        for split in SPLITS
    }
    assert sentences["train"].isdisjoint(sentences["benchmark"])
    assert sentences["train"].isdisjoint(sentences["validation"])
    assert sentences["validation"].isdisjoint(sentences["benchmark"])


def test_every_hero_and_every_scenario_is_trained_on():
    pairs = [(scenario, hero) for scenario in range(len(stories.SCENARIOS)) for hero in range(len(stories.HEROES))]
    trained = [pair for pair in pairs if stories.split_of(*pair) == "train"]
    assert len(trained) / len(pairs) > 0.8
    assert {scenario for scenario, _ in trained} == set(range(len(stories.SCENARIOS)))
    assert {hero for _, hero in trained} == set(range(len(stories.HEROES)))


def outcome_of(ending, story):
    """The outcome whose ending a sentence is, with the story's words filled in."""
    plot = stories.SCENARIOS[story.scenario]
    fixed = {
        outcome: [max(template.replace("}", "{").split("{")[::2], key=len) for template in plot[outcome]["ending"]]
        for outcome in ("good", "bad")
    }
    (outcome,) = [name for name, parts in fixed.items() if any(part in ending for part in parts)]
    return outcome


def test_the_wrong_ending_is_of_the_other_outcome_and_outcomes_alternate():
    for number, story in enumerate(stories.generate_stories(200, "benchmark", seed=0)):
        expected = ("good", "bad") if number % 2 == 0 else ("bad", "good")
        assert (outcome_of(story.ending, story), outcome_of(story.wrong_ending, story)) == expected
