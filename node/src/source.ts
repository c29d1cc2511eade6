// Reads a caller's iterable, one element after the other, while the reader has room.

/** @internal */
export interface Reader<Element> {
  /** Maximum time to read without a pause. A slow source must not delay results or block the event loop. */
  readonly readsForMs: number
  hasRoom(): boolean
  take(element: Element): void
  /** Called when no more elements are available for now. */
  flush(): void
  /** Called after the last element. */
  end(): void
  /** Called when the source or `take` throws. */
  fail(thrown: unknown): void
}

/** @internal */
export class Source<Element> {
  readonly #reader: Reader<Element>
  readonly #iterator: Iterator<Element> | AsyncIterator<Element>
  readonly #isAsync: boolean
  /** `next` was called and has no result yet. */
  #isReading = false
  #isFlushing = false
  #continuesSoon = false
  /** The source has ended, thrown, or been left. */
  #isOver = false

  constructor(elements: Iterable<Element> | AsyncIterable<Element>, reader: Reader<Element>) {
    this.#reader = reader
    this.#isAsync = Symbol.asyncIterator in elements
    this.#iterator =
      Symbol.asyncIterator in elements ? elements[Symbol.asyncIterator]() : elements[Symbol.iterator]()
  }

  /** Reads until there is no room. */
  read(): void {
    if (this.#isAsync) {
      void this.#readAsync()
    } else {
      this.#readSync()
    }
  }

  /** Closes the source, like a `for await` loop that is left. */
  async leave(): Promise<void> {
    if (this.#isOver) {
      return
    }
    this.#isOver = true
    if (!this.#isReading) {
      await this.#iterator.return?.()
    } else if (this.#isAsync) {
      // Do not wait: a generator closes only after its current `await`, which may never finish.
      Promise.resolve(this.#iterator.return?.()).catch(() => {})
    }
    // A running synchronous generator cannot be closed here. `#readSync` closes it.
  }

  #readSync(): void {
    const iterator = this.#iterator as Iterator<Element>
    const until = performance.now() + this.#reader.readsForMs
    while (this.#wantsMore()) {
      if (performance.now() > until) {
        this.#continueSoon()
        break
      }
      try {
        this.#isReading = true
        const step = iterator.next()
        this.#isReading = false
        this.#take(step)
        if (this.#isOver && !step.done) {
          iterator.return?.()
        }
      } catch (thrown) {
        this.#fail(thrown)
      }
    }
    this.#reader.flush()
  }

  #continueSoon(): void {
    if (!this.#continuesSoon) {
      this.#continuesSoon = true
      setImmediate(() => {
        this.#continuesSoon = false
        this.#readSync()
      })
    }
  }

  async #readAsync(): Promise<void> {
    while (this.#wantsMore()) {
      try {
        this.#isReading = true
        const step = await this.#iterator.next()
        this.#isReading = false
        this.#take(step)
      } catch (thrown) {
        this.#fail(thrown)
      }
      this.#flushSoon()
    }
  }

  /** Flushes in the next turn of the event loop, so that elements that are available together are flushed together. */
  #flushSoon(): void {
    if (!this.#isFlushing) {
      this.#isFlushing = true
      setImmediate(() => {
        this.#isFlushing = false
        this.#reader.flush()
      })
    }
  }

  #wantsMore(): boolean {
    return !this.#isOver && !this.#isReading && this.#reader.hasRoom()
  }

  #take(step: IteratorResult<Element>): void {
    if (typeof step !== 'object' || step === null) {
      throw new TypeError(`Iterator result ${String(step)} is not an object`)
    }
    if (!step.done) {
      this.#reader.take(step.value)
    } else if (!this.#isOver) {
      this.#isOver = true
      this.#reader.flush()
      this.#reader.end()
    }
  }

  #fail(thrown: unknown): void {
    const wasLeft = this.#isOver
    // An exception of `next` has closed the source. An exception of `take` has not.
    if (this.#isReading) {
      this.#isReading = false
      this.#isOver = true
    }
    if (!wasLeft) {
      this.#reader.fail(thrown)
    }
  }
}
