using Tensormesh.Operator.Watching;

namespace Tensormesh.Operator.Tests;

public sealed class HeapKeeperTests
{
    private const long Megabyte = 1 << 20;

    [Theory]
    [InlineData(40, 51, false)]
    [InlineData(40, 52, true)]
    [InlineData(160, 179, false)]
    [InlineData(160, 180, true)]
    [InlineData(160, 100, false)]
    public void The_heap_is_collected_when_it_has_grown_by_an_eighth_and_by_twelve_megabytes(long kept, long now, bool due)
        => Assert.Equal(due, HeapKeeper.IsDue(kept * Megabyte, now * Megabyte));
}
