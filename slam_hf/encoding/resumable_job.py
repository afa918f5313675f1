"""The shape of a job that runs on an executor and can be killed at any moment."""

from abc import ABC, abstractmethod
from typing import Any

from ..execution.arguments import ExecutorArguments
from ..execution.steps import choose_executor, run_steps
from ..folder_lock import lock_folder
from ..folders import open_folder
from .job_state import check_settings, claim_folder, job_name, read_state
from .ledger import Ledger
from .progress import JobProgress
from .source_arguments import SourceArguments
from .source_file import open_source, prepare_source
from .sources import Source


class ResumableJob(ABC):
    """
    A job whose tasks fill a ledger with the chunks of a source, and whose closing step makes the result of them. A
    subclass is a dataclass of names and numbers, so that any machine can run it. It has

    - **source** ([`SourceArguments`]) -- The input.
    - **output_dir** (`str`) -- Path or URL of the folder of the result.
    - **folder** (`str`) -- Hidden folder for the state of the job, in `output_dir`.
    - **title**, **progress** (`str`) -- What the job is called in errors, and at the progress bar.
    """

    source: SourceArguments
    output_dir: str
    title: str
    progress: str

    def run(self, executor: ExecutorArguments) -> Any:
        """Do the job on an executor, or continue it. Returns its summary, or `None` if it was submitted to Slurm.

        Raises:
            ValueError: the source or the folder does not fit, the job was begun with other input or settings, or a
                file is damaged.
            FileExistsError: `output_dir` holds files that would be replaced, and that no such job has written.
            FolderInUseError: another job is writing to `output_dir`.
            ChildProcessError: tasks have failed, as [`run_steps`] says.
            DiskFullError: no space is left. What is finished is kept.
        """
        executor.check_reach(*self.paths())
        self.check_folder()
        with lock_folder(self.output_dir):
            if not self.has_all_chunks():
                choose_executor(executor, f"{self.folder}/logs")
            self.load()  # it takes less time than the list to find something missing
            source = self.list_source()
            claim_folder(self.folder, self.settings(source), self.title)
            if self.has_all_chunks():
                self.finish(None, 0, 1)
                files = open_folder(self.folder)
                if executor.executor != "slurm" and files.exists("logs"):  # of a run that was killed at the end
                    files.rm("logs", recursive=True)
                return self.read_summary()
            with JobProgress(source.parts, self.ledger(), executor.executor == "slurm", desc=self.progress):
                is_done = run_steps(self.work, self.finish, executor, f"{self.folder}/logs")
        return self.read_summary() if is_done else None

    def work(self, data: Any, rank: int, world_size: int) -> None:
        """Do what is missing of a task's share, on the accelerator of this process or else on the CPU."""
        source = self.open_source()
        check_settings(self.folder, self.settings(source), self.title)
        if not self.has_all_chunks():
            self.process(source, rank, world_size)

    def finish(self, data: Any, rank: int, world_size: int) -> None:
        """Make the result, once every chunk is there; repeated, it gives the same files."""
        with lock_folder(self.output_dir):
            if not self.has_all_chunks():
                source = self.open_source()
                # Chunks of a job with other settings would count as damaged.
                check_settings(self.folder, self.settings(source), self.title)
                self.gather(source)
            self.complete()

    def ledger(self, name: str = "chunks") -> Ledger:
        """A new ledger of the job that has claimed the folder. It finds the folder as it is now: it may have been
        moved away."""
        return Ledger(f"{self.folder}/{name}", job_name(read_state(f"{self.folder}/settings.json")))

    @abstractmethod
    def process(self, source: Source, rank: int, world_size: int) -> None:
        """Add the chunks that are missing of a task's share to the ledger."""

    @abstractmethod
    def paths(self) -> list[str]:
        """Paths and URLs that all tasks must be able to read."""

    @abstractmethod
    def check_folder(self) -> None:
        """Raise `FileExistsError` or `ValueError` if `output_dir` is not for this job."""

    @abstractmethod
    def load(self) -> None:
        """Load the models, to find out whether they are there."""

    @abstractmethod
    def settings(self, source: Source) -> dict[str, Any]:
        """Everything that the chunks depend on. Paths and the division of the work are not among it."""

    @abstractmethod
    def gather(self, source: Source) -> None:
        """Put the chunks together, after which [`has_all_chunks`] is true."""

    @abstractmethod
    def complete(self) -> None:
        """Check what was put together, write what may be missing of the result, and remove what the job needs no
        longer."""

    @abstractmethod
    def read_summary(self) -> Any:
        """Summary of the job, or `None` while it is not finished."""

    def has_all_chunks(self) -> bool:
        """Whether every chunk is there and was put together. Parts of the result may still be missing."""
        return self.read_summary() is not None

    def list_source(self) -> Source:
        """List and probe the input, once for all tasks."""
        return prepare_source(f"{self.folder}/source.parquet", self.source)

    def open_source(self) -> Source:
        """The input, as [`list_source`] has found it."""
        return open_source(f"{self.folder}/source.parquet")
