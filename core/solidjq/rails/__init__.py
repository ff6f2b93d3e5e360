"""What Rails writes, read and written as data: payloads, error texts, ``database.yml``, settings. Nothing is evaluated.

Read the files in this order:

- ``ruby_values``: ``Symbol`` and ``GlobalID``, values that Ruby has and Python lacks.
- ``json_edits``: changes a few values in the text of a JSON object, and nothing else in it.
- ``argument_values``: one argument of a job, between a Python value and Active Job's JSON.
- ``active_job``: the payload in ``jobs.arguments``, Active Job's JSON.
- ``continuation``: how far a long job got, in that payload, as ``ActiveJob::Continuation`` writes it.
- ``positions``: where a long job stood, to compare its deaths; and what we write beside the continuation.
- ``error_text``: the error in ``failed_executions.error``, of every version of Solid Queue.
- ``database_yml``: the URL of a Rails application's queue database.
- ``settings``: what a Rails application configures for its workers, in Ruby files and ``config/queue.yml``.
- ``job_code``: which classes its Ruby files define, and handlers of errors that no job raises.
- ``schedules``: the times at which a recurring task is due, and which of them were missed.
- ``schedule_texts``: the texts of schedules, as fugit reads them.
- ``masking``: values of arguments that are not shown, by the names that Rails and the application filter.

Every room above may import this one, and so may ``registry`` and the command line. It imports ``database``, for URLs,
and the ground.
"""
