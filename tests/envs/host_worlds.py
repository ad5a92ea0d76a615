"""Worlds on the host: a line to walk along, and one of tasks with goals as OGBench has them."""

import gymnasium
import numpy as np


class Line(gymnasium.Env):
    """Starts anywhere on a line and pays the place; ends beyond 2. The action moves it by -0.5 to 1.5."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2, 1), np.float64)
    action_space = gymnasium.spaces.Box(-0.5, 1.5, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.walked = self.np_random.uniform(-1, 1), 0
        return self.seen(), {}

    def seen(self):
        return np.array([[self.place], [float(self.walked)]])

    def step(self, action):
        assert self.action_space.contains(action)
        self.place, self.walked = self.place + float(action[0]), self.walked + 1
        return self.seen(), self.place, bool(self.place > 2), False, {}


class Goals(gymnasium.Env):
    """A point in a square, two tasks: start and goal of each are told on reset, drawn near it with NumPy's global
    generator. It costs 1 per step until it arrives, which ends the episode."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    task_infos = [  # noqa: RUF012
        {"task_name": "task1", "start": (0.0, 0.0), "goal": (2.0, 2.0)},
        {"task_name": "task2", "start": (1.0, 1.0), "goal": (-30.0, 0.0)},
    ]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        task = (options or {}).get("task_id") or np.random.randint(1, 3)  # noqa: NPY002
        self.task = self.task_infos[task - 1]
        self.place = np.array(self.task["start"]) + np.random.uniform(-0.1, 0.1, 2)  # noqa: NPY002
        self.goal = np.array(self.task["goal"]) + np.random.uniform(-0.1, 0.1, 2)  # noqa: NPY002
        return self.place.copy(), {"goal": self.goal.copy()}

    def step(self, action):
        self.place = self.place + 0.5 * action
        success = bool(np.linalg.norm(self.place - self.goal) < 0.5)
        return self.place.copy(), success - 1.0, success, False, {"success": float(success)}


class Entries(Line):
    """``Line`` whose observation is a dictionary, as in Gymnasium-Robotics."""

    box = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    observation_space = gymnasium.spaces.Dict({"walked": box, "observation": box, "achieved_goal": box})

    def seen(self):
        one = np.array([self.place])
        return {"walked": np.array([float(self.walked)]), "observation": one, "achieved_goal": one + 10}


gymnasium.register("jaxrl_reg_test/Line-v0", Line, max_episode_steps=6)
gymnasium.register("jaxrl_reg_test/Goals-v0", Goals, max_episode_steps=8)
gymnasium.register("jaxrl_reg_test/Entries-v0", Entries, max_episode_steps=6)
