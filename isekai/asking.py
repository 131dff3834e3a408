"""Puts episodes to models: one sweep at a time, or several at once where an adapter takes them."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from isekai.errors import IsekaiError
from isekai.protocols import Closing, Concurrent, ModelAdapter
from isekai.scoring import malformed, outcome
from isekai.types import Episode, Prediction, Ranking, Response, Sweep

Fold = Callable[[Episode], Sweep]
Answered = tuple[Episode, list[Prediction]]


def ask(
    model: str, adapter: ModelAdapter, episodes: Sequence[Episode], fold: Fold, ranking: Ranking
) -> Iterator[Answered]:
    """Each episode with its predictions, as they come.

    `fold` is called in this thread alone. Whatever ends it early, the answers of every episode that
    was complete by then have come out before.
    """
    if not isinstance(adapter, Concurrent) or adapter.sweeps < 2:
        for episode in episodes:
            yield episode, predict(model, adapter, episode, fold(episode), ranking)
        return
    pool = ThreadPoolExecutor(adapter.sweeps, thread_name_prefix=model)
    try:
        yield from _at_once(pool, adapter.sweeps, model, adapter, episodes, fold, ranking)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        if isinstance(adapter, Closing):
            adapter.close()  # requests that nobody waits for any more must not hold the process


def _at_once(
    pool: ThreadPoolExecutor,
    width: int,
    model: str,
    adapter: ModelAdapter,
    episodes: Sequence[Episode],
    fold: Fold,
    ranking: Ranking,
) -> Iterator[Answered]:
    """At most `width` sweeps, with their pictures, are in memory at a time."""
    running: dict[Future[list[Prediction]], Episode] = {}
    waiting = iter(episodes)
    problem: IsekaiError | None = None
    while True:
        if problem is None:
            for episode in islice(waiting, width - len(running)):
                sweep = fold(episode)
                started = pool.submit(predict, model, adapter, episode, sweep, ranking)
                running[started] = episode
        if not running:
            break
        for ended in wait(running, return_when=FIRST_COMPLETED).done:
            episode = running.pop(ended)
            error = ended.exception()
            if error is None:
                yield episode, ended.result()
            elif isinstance(error, IsekaiError):
                problem = problem or error  # those under way may still answer
            else:
                raise error
    if problem:
        raise problem


def predict(
    model: str, adapter: ModelAdapter, episode: Episode, sweep: Sweep, ranking: Ranking = "sum"
) -> list[Prediction]:
    """Put one episode to a model and score what it says: a prediction a shot count and query.

    An exception of the adapter makes the predictions that it left out fail, with its reason; an
    IsekaiError is for the user to mend and goes up. Too many or too few responses all fail: whose
    they are cannot be known.
    """
    asked = [(shots, query) for shots in episode.shots for query in range(len(episode.queries))]
    said: list[Prediction] = []
    problem = ""
    try:
        for response in islice(adapter.respond(sweep), len(asked) + 1):
            place = asked[min(len(said), len(asked) - 1)]
            said.append(_prediction(model, episode, sweep, place, response, ranking))
    except IsekaiError:
        raise
    except Exception as error:  # one broken episode must not end a run
        problem = f"{type(error).__name__}: {error}"
    if not problem and len(said) != len(asked):
        count = len(said) if len(said) < len(asked) else "more"
        problem = f"{count} responses to {len(asked)} questions"
        said = []
    for place in asked[len(said) :]:
        failure = Response(text="", error=problem)
        said.append(_prediction(model, episode, sweep, place, failure, ranking))
    return said[: len(asked)]


def _prediction(
    model: str,
    episode: Episode,
    sweep: Sweep,
    place: tuple[int, int],
    response: Response,
    ranking: Ranking,
) -> Prediction:
    shots, number = place
    query = episode.queries[number]
    target = episode.labels[query.concept]
    error = response.error or malformed(response, sweep.labels)
    scores, tokens, usage = response.label_logprobs, response.label_tokens, response.usage
    response = Response(
        text=response.text.encode(errors="replace").decode(),  # half a surrogate pair has no bytes
        label_logprobs={k: float(v) for k, v in scores.items()} if scores and not error else None,
        label_tokens={k: int(v) for k, v in tokens.items()} if tokens and not error else None,
        usage={k: float(v) for k, v in usage.items()} if usage else None,
        finish=response.finish,
        error=error,
    )
    # What a prior takes off is known when the run is complete: until then the sum ranks.
    answer, result = outcome(
        response, sweep.labels, target, ranking="sum" if ranking == "prior" else ranking
    )
    return Prediction(
        model=model,
        episode_id=episode.id,
        shots=shots,
        query=number,
        target=target,
        answer=answer,
        outcome=result,
        text=response.text,
        image_id=query.image_id,
        label_logprobs=response.label_logprobs,
        label_tokens=response.label_tokens,
        usage=response.usage,
        finish=response.finish,
        error=error,
    )
