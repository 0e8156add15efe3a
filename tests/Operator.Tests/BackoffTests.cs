using Tensormesh.Operator.Watching;

namespace Tensormesh.Operator.Tests;

public sealed class BackoffTests
{
    private static readonly TimeSpan First = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan Longest = TimeSpan.FromSeconds(30);

    [Fact]
    public void Pauses_double_up_to_the_longest_and_each_is_half_to_one_and_a_half_of_what_is_due()
    {
        int[] due = [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000];
        for (var seed = 0; seed < 200; seed++)
        {
            var backoff = new Backoff(First, Longest, new Random(seed));
            Assert.All(due, milliseconds => Assert.InRange(backoff.Next().TotalMilliseconds, milliseconds * 0.5, milliseconds * 1.5));
            backoff.Reset();
            Assert.InRange(backoff.Next().TotalMilliseconds, 100, 300);
        }
    }

    [Fact]
    public void Clients_that_failed_together_do_not_come_back_together()
    {
        var pauses = Enumerable.Range(0, 100).Select(seed => new Backoff(First, Longest, new Random(seed)).Next().TotalMilliseconds).Order().ToList();
        Assert.Equal(100, pauses.Distinct().Count());
        Assert.True(pauses[^1] - pauses[0] > 150, $"{pauses[0]} to {pauses[^1]} ms");
    }

    [Fact]
    public void A_pause_of_nothing_stays_nothing()
    {
        var backoff = new Backoff(TimeSpan.Zero, TimeSpan.Zero, new Random(1));
        Assert.All(Enumerable.Range(0, 50), _ => Assert.Equal(TimeSpan.Zero, backoff.Next()));
    }
}
