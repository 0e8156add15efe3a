using Microsoft.Extensions.Time.Testing;
using Tensormesh.Operator.Admission;

namespace Tensormesh.Operator.Tests;

/// <summary>What the gate may admit from: only what was read a moment ago, while the ledger was listened to, and before anything changed.</summary>
public sealed class StandingMemoryTests
{
    private readonly FakeTimeProvider time = new(A.Noon);
    private readonly StandingMemory memory;

    public StandingMemoryTests() => memory = new StandingMemory(time);

    [Fact]
    public void Remembers_nothing_while_nobody_listens()
    {
        memory.Keep(A.Standing().Account, memory.Now);
        Assert.Null(memory.Find(A.Acme));

        memory.Listen(true);
        memory.Keep(A.Standing().Account, memory.Now);
        Assert.NotNull(memory.Find(A.Acme));

        // What changes from here on is not told any more.
        memory.Listen(false);
        Assert.Null(memory.Find(A.Acme));
        memory.Listen(true);
        Assert.Null(memory.Find(A.Acme));
    }

    [Fact]
    public void Forgets_what_changed_and_what_changed_while_it_was_read()
    {
        memory.Listen(true);
        memory.Keep(A.Standing().Account, memory.Now);
        memory.Forget(A.Acme);
        Assert.Null(memory.Find(A.Acme));

        var asOf = memory.Now;
        memory.Forget(A.Acme);
        memory.Keep(A.Standing().Account, asOf);
        Assert.Null(memory.Find(A.Acme));
    }

    [Fact]
    public void Remembers_for_seconds_only()
    {
        memory.Listen(true);
        memory.Keep(A.Standing().Account, memory.Now);
        time.Advance(TimeSpan.FromSeconds(9));
        Assert.NotNull(memory.Find(A.Acme));
        time.Advance(TimeSpan.FromSeconds(1));
        Assert.Null(memory.Find(A.Acme));
    }
}
