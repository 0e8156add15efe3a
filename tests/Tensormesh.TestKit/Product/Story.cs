using System.Diagnostics;

namespace Tensormesh.TestKit;

/// <summary>The story of the main job, told by a script: <c>make demo</c> and the end-to-end test run the same one.</summary>
public static class Story
{
    /// <param name="environmentFile">As <see cref="EnvironmentFile"/> renders it.</param>
    /// <param name="forward">Sees each line; null leaves the output to the console.</param>
    public static Process Start(string environmentFile, Action<string>? forward)
    {
        var start = new ProcessStartInfo("bash")
        {
            WorkingDirectory = Repository.Root,
            RedirectStandardOutput = forward is not null,
            RedirectStandardError = forward is not null,
        };
        start.ArgumentList.Add(Repository.Folder("tests", "EndToEnd.Tests", "story.sh"));
        start.ArgumentList.Add(environmentFile);
        var story = Process.Start(start) ?? throw new InvalidOperationException("bash could not be started");
        if (forward is null) return story;
        void Forward(object _, DataReceivedEventArgs line)
        {
            if (line.Data is { } text) forward(text);
        }

        story.OutputDataReceived += Forward;
        story.ErrorDataReceived += Forward;
        story.BeginOutputReadLine();
        story.BeginErrorReadLine();
        return story;
    }
}
