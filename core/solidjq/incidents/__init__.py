"""Incidents: why processes died, which of their jobs may have killed them, and which are bystanders.

Read the files in this order:

- ``claimed_jobs``: the jobs of a death, kept small.
- ``death_records``: how a process ended, with the evidence, as one kind of record whoever noticed it.
- ``stored_evidence``: its evidence, parsed when somebody looks at it.
- ``reconstruction``: deaths that nobody recorded, put together from the failures that they left.
- ``unrecorded``: the failures of such deaths, grouped by the database.
- ``packed_deaths``: very many of them in a few hundred bytes each.
- ``death_queries``: yields deaths as they fell silent, those of ``jq_deaths`` in batches; their jobs are counted.
- ``death_jobs``: reads the jobs of deaths, which were only counted before.
- ``causes``: what a death may be put down to, with a confidence and advice.
- ``company``: the evidence beyond one death: others of its moment, and processes that went on.
- ``cause_facts``: the facts that causes rest on, a pure function for each rule.
- ``cause_rules``: the table of rules that puts a death down to a cause.
- ``incidents``: groups deaths of one moment and one manner, judges each, and splits them by cause.
- ``summaries``: incidents without the evidence of their deaths.
- ``failure_deaths``: the incident of each failure on a page, its host, and the crashes of its job.
- ``death_cases``: deaths and what usually runs, as the evidence that the next four files work on.
- ``packed_cases``: very many of them in a few bytes each.
- ``class_scores``: job classes that are in flight at more deaths than chance allows.
- ``job_scores``: jobs that were in flight at several deaths.
- ``suspects``: the ranking of both, and what a retry needs of it.
- ``charges``: reads the evidence from the database, and ranks.
- ``waiting``: how many jobs of each incident are failed still.

``status``, ``recovery``, ``diff``, ``doctor`` and the command line may import this room; ``runtime`` and everything
below never do. It imports ``processes``, ``ledger``, ``queue``, ``rails``, ``database`` and the ground.
"""
