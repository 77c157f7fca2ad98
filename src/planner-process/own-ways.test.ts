/** Engines that do other things than they are told, as vLLM does under pressure: over a real socket, played, by chance. */
import { describe, expect, test } from "vitest"
import { Random } from "../random.ts"
import { until } from "../serve/until-testing.ts"
import type { EngineMessage } from "../wire/planner/messages.ts"
import { freshPath, openPlanner } from "./planner-testing.ts"
import { RecordingFile } from "./recording.ts"
import { replayRecording } from "./replay.ts"
import { ENGINE, type OwnWays, PlayedEngine } from "./testing.ts"

/** The same numbers each time. */
function chances(seed: number): () => number {
  const random = new Random(seed)
  return () => random.uniform()
}

/** More with SEEDS=1000. */
const SEEDS = Number(process.env.SEEDS ?? 3)

const WAYS: [string, number, Partial<OwnWays>, Partial<EngineMessage>][] = [
  ["schedules by itself", 2, { ignores: 0.3 }, {}],
  ["cuts plans short", 2, { leavesOut: 0.1, shortens: 0.3 }, {}],
  ["takes KV by itself", 2, { drops: 0.2 }, {}],
  ["asks for another plan when something arrives", 2, { renews: 1 }, {}],
  ["asks for another plan at times, and does all of that", 3, { renews: 0.5, ignores: 0.2, drops: 0.1 }, {}],
  ["drafts", 2, { accepts: 0.6 }, { maxDrafts: 3 }],
  ["drafts, and schedules by itself", 2, { ignores: 0.2, accepts: 0.6 }, { maxDrafts: 3 }],
  ["does all of that, asynchronously", 3, { ignores: 0.2, leavesOut: 0.1, shortens: 0.2, drops: 0.1 }, {}],
  ["does all of that, four steps deep", 4, { ignores: 0.2, leavesOut: 0.1, shortens: 0.2, drops: 0.1 }, {}],
  [
    "does all of that, short of KV",
    3,
    { ignores: 0.2, leavesOut: 0.1, shortens: 0.2, drops: 0.1 },
    // The core may not have room in its account for what the engine has: then it believes less, and is told again.
    { limits: { ...ENGINE.limits, kvTokens: 1040 } },
  ],
]
describe.each(WAYS)("an engine that %s", (_, depth, ways, engine) => {
  test("is believed: what is planned fits what it has, all its requests end, and each plan can be made again", async () => {
    const path = freshPath()
    const recording = new RecordingFile(`${path}.rec`, "test", () => {})
    const { path: socket, planner, said } = await openPlanner({ recording }, path)
    for (let seed = 1; seed <= SEEDS; seed++) {
      const random = chances(seed)
      const played = new PlayedEngine({ ...engine, depth, name: `seed ${seed}` }, { ...ways, random })
      await played.connect(socket)
      for (let i = 0; i < 40; i++) {
        if (i < 25)
          played.add({
            promptTokens: 1 + Math.floor(500 * random() ** 2),
            maxOutputTokens: 1 + Math.floor(20 * random()),
            stopsAfter: random() < 0.3 ? 1 + Math.floor(10 * random()) : Infinity,
            slo: random() < 0.3 ? { slo_tier: "best_effort" } : { slo_class: "code" },
          })
        if (random() < 0.1) played.abort([...played.requests.keys()][0] ?? 0)
        await played.step()
        planner.sessions.at(-1)?.replica.check()
      }
      await played.run()
      expect(played.requests.size, `seed ${seed}`).toBe(0)
      if (engine.limits === undefined) expect(played.misfits, `seed ${seed}`).toEqual([])
      for (const { output, maxOutputTokens, stopsAfter } of played.ended)
        expect(output).toBe(Math.min(maxOutputTokens, stopsAfter))
      await played.step()
      played.disconnect()
    }
    expect(said.filter((line) => /fault|refuses|is gone: (?!its connection)/.test(line))).toEqual([])
    await until(() => expect(planner.sessions).toHaveLength(0))
    await recording.close()
    const replayed = replayRecording(`${path}.rec`)
    expect(replayed).toMatchObject({ sessions: SEEDS, difference: null, cut: false })
    expect(replayed.plans).toBeGreaterThan(100)
  })
})
