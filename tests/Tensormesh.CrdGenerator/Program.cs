using Tensormesh.CrdGenerator;

// dotnet run --project tests/Tensormesh.CrdGenerator -- crds
if (args is not [var folder])
{
    Console.Error.WriteLine("usage: Tensormesh.CrdGenerator FOLDER: writes one CRD file per kind into it");
    return 2;
}

Directory.CreateDirectory(folder);
foreach (var (file, yaml) in CustomResourceDefinitions.Files())
{
    File.WriteAllText(Path.Combine(folder, file), yaml);
    Console.WriteLine(Path.Combine(folder, file));
}

return 0;
