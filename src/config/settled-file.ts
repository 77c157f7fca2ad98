/** A file that its operator may write at any time: what is read in the middle of that is half of it, or nothing. */
import { readFile } from "node:fs/promises"
import { setTimeout as sleep } from "node:timers/promises"

/** What stays so for so long is whole, ms. */
const SETTLES_MS = 20
/** One that never comes to rest is taken as it is. */
const MOST_LOOKS = 50

/** `pause`: until it is looked at again. */
export async function readSettled(
  path: string,
  pause: () => Promise<unknown> = () => sleep(SETTLES_MS),
): Promise<string> {
  let text = await readFile(path, "utf8")
  for (let looks = 0; looks < MOST_LOOKS; looks++) {
    await pause()
    const again = await readFile(path, "utf8")
    if (again === text) break
    text = again
  }
  return text
}
