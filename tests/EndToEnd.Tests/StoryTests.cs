using System.Text;
using Tensormesh.TestKit;

namespace Tensormesh.EndToEnd.Tests;

[Collection("one product at a time")]
public sealed class StoryTests(ProductFixture fixture) : IClassFixture<ProductFixture>
{
    private static readonly TimeSpan Limit = TimeSpan.FromMinutes(10);

    [Fact]
    public async Task The_story_of_the_main_job_holds()
    {
        var told = new StringBuilder();
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        limit.CancelAfter(Limit);
        using var story = Story.Start(fixture.EnvironmentFile, line =>
        {
            lock (told) told.AppendLine(line);
        });
        try
        {
            await story.WaitForExitAsync(limit.Token);
        }
        catch (OperationCanceledException)
        {
            story.Kill(entireProcessTree: true);
        }

        lock (told) Assert.True(story is { HasExited: true, ExitCode: 0 }, told.ToString());
    }
}
