namespace Tensormesh.Web;

/// <summary>
/// How many requests with usage are worked on at once, and how many wait: a body is read only once it is its turn, so that memory has a bound whoever sends
/// what. Who comes when the queue is full is told to come again.
/// </summary>
internal sealed class IngestionQueue : IDisposable
{
    /// <summary>Each keeps a connection and a batch in memory. Twice the cores: while one waits for the disk, another is read.</summary>
    public static readonly int AtOnce = Math.Max(2, Environment.ProcessorCount * 2);

    public const int MostWaiting = 64;

    public static readonly TimeSpan RetryAfter = TimeSpan.FromSeconds(1);

    private readonly SemaphoreSlim turns = new(AtOnce);
    private int waiting;

    public void Dispose() => turns.Dispose();

    /// <summary>Null: the queue is full.</summary>
    public async Task<IDisposable?> EnterAsync(CancellationToken cancellation)
    {
        if (!turns.Wait(0, CancellationToken.None))
        {
            if (Interlocked.Increment(ref waiting) > MostWaiting)
            {
                Interlocked.Decrement(ref waiting);
                return null;
            }

            try
            {
                await turns.WaitAsync(cancellation);
            }
            finally
            {
                Interlocked.Decrement(ref waiting);
            }
        }

        return new Turn(turns);
    }

    private sealed class Turn(SemaphoreSlim turns) : IDisposable
    {
        private readonly SemaphoreSlim turns = turns;

        public void Dispose() => turns.Release();
    }
}
