"""Progress that is kept: the work told of and done, and the names of the stages."""

from mtl_tickets.progress import Silent


class Counting(Silent):
    work, done, stages = 0, 0, ()

    def begin(self, run, work):
        self.work = work

    def stage(self, name):
        self.stages = (*self.stages, name)

    def advance(self, work):
        self.done += work
