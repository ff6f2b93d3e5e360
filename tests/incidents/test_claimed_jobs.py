"""The packed jobs of a death are the jobs that were put in."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from solidjq.incidents.claimed_jobs import ClaimedJob, ClaimedJobs

ID = st.integers(min_value=-(2**63) + 1, max_value=2**63 - 1)
JOBS = st.lists(
    st.builds(
        ClaimedJob,
        job_id=ID,
        subject=st.text(max_size=40),
        class_name=st.sampled_from(["Mail", "Report", "Émile", "\ud800"]),
        failure_id=st.none() | ID,
        started_at=st.none() | st.just(datetime(2026, 1, 1, tzinfo=UTC)),
        growth=st.none() | st.integers(),
    ),
    max_size=8,
)


@given(JOBS)
def test_what_is_packed_comes_out(jobs: list[ClaimedJob]) -> None:
    packed = ClaimedJobs(jobs)
    assert list(packed) == jobs
    assert len(packed) == len(jobs)
    assert packed[:2] == jobs[:2]
    assert packed == ClaimedJobs(jobs)
    assert list(packed.job_ids) == [job.job_id for job in jobs]
    assert list(packed.failure_ids) == [job.failure_id for job in jobs if job.failure_id is not None]
    assert list(packed.starts) == [job.started_at for job in jobs if job.started_at is not None]
    counts = packed.by_class()
    assert list(counts) == list(dict.fromkeys(job.class_name for job in jobs))
    assert counts.total() == len(jobs)


@given(JOBS)
def test_the_jobs_of_each_class_are_taken_apart_in_order(jobs: list[ClaimedJob]) -> None:
    classes = dict.fromkeys(job.class_name for job in jobs)
    expected = {name: [job for job in jobs if job.class_name == name] for name in classes}
    apart = ClaimedJobs(jobs).apart()
    assert {name: list(of_class) for name, of_class in apart.items()} == expected
    assert [len(of_class) for of_class in apart.values()] == [len(of_class) for of_class in expected.values()]


def test_an_id_that_is_no_number_stays_unknown() -> None:
    packed = ClaimedJobs()
    packed.add(None, "job ?", "Mail", None)  # SQLite takes anything for an id
    assert [(job.job_id, job.failure_id) for job in packed] == [(None, None)]
    assert [*packed.job_ids, *packed.failure_ids] == []
